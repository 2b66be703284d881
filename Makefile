# The two commands are `make train` and `make test`; `make help` lists all.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
READERS := .venv-readers
RUN := $(VENV)/bin/python
# Tests of one file run one after the other, in one of three processes: many wait for other processes. They need 8 GB.
PYTEST := $(RUN) -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

.PHONY: help train test test-fast test-all readers check reproduce benchmark benchmark-checkpointing benchmark-tools benchmark-fonts guides pictures clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 26

train: $(VENV)/ready-to-train  ## install, train the CNN on the bundled MNIST, export the model
	$(RUN) train_cnn.py

test: $(VENV)/ready-to-test check readers  ## install, check and test: everything that CI runs
	$(PYTEST)

# Without the folders and files that start TensorFlow processes, or take more than five seconds on a quiet machine.
FAST := tests/benchmarks tests/checkpointing tests/configs tests/mnist tests/test_architecture.py tests/test_language.py
NOT_FAST := array_stats cleanup compare convert dataset_tfds digit_segmentation evaluate export graph_safety history image_files \
  inspect_commands main maintenance manager meta_graphs model_card networks predict predictor report reproduce resume sampling \
  saved_model saver starting supervisor tensor_bundle tf_import training_graph transform_commands wheel
test-fast: $(VENV)/ready-to-test check  ## checks and the tests that start no TensorFlow process: the inner loop
	$(PYTEST) $(FAST) $(NOT_FAST:%='--ignore-glob=*/test_%.py')

test-all: $(VENV)/ready-to-test check readers  ## as test, with the tests that take minutes
	$(PYTEST) -m ''

# Optional: these packages are not available for every machine.
readers: $(VENV)/ready-to-test  ## install OpenVINO, tf2onnx, onnxruntime and KServe, if possible
	@$(MAKE) --silent $(READERS)/ready 2>/dev/null || \
	  echo "$(READERS) could not be installed, tests/readers will be skipped; 'make $(READERS)/ready' shows the error"

check: $(VENV)/ready-to-test  ## lint, formatting and types
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

benchmark: $(VENV)/ready-to-test $(PEERS)/ready  ## speed against feed_dict, Keras, PyTorch and JAX; startup, scaling, overhead
	$(RUN) -m benchmarks.throughput --peers_python=$(PEERS)/bin/python
	$(RUN) -m benchmarks.time_to_accuracy --peers_python=$(PEERS)/bin/python
	$(RUN) -m benchmarks.startup
	$(RUN) -m benchmarks.overhead
	$(RUN) -m benchmarks.scaling

benchmark-checkpointing: $(VENV)/ready-to-test $(PEERS)/ready  ## cost of a checkpoint, against Saver, PyTorch and Orbax
	$(RUN) -m benchmarks.checkpointing --peers_python=$(PEERS)/bin/python

benchmark-tools: $(VENV)/ready-to-test  ## time and memory of list, verify, prune and show on many checkpoints and on a large one
	$(RUN) -m benchmarks.tools

benchmark-fonts: $(VENV)/ready-to-test  ## accuracy on digits of handwriting fonts, which npm downloads; trains three recipes
	$(RUN) -m benchmarks.fonts

reproduce: $(VENV)/ready-to-test  ## run all recipes over seeds, compare with the stated results; takes hours, resumes
	$(RUN) -m mnist.reproduce --write_docs

guides: $(VENV)/ready-to-test  ## run the guides in docs/ and the notebook, and write their new output into them
	$(RUN) -m tests.guide docs/saving-and-restoring.md
	$(RUN) -m tests.guide docs/serving.md
	$(RUN) -m tests.guide notebooks/tour.ipynb

pictures: $(VENV)/ready-to-test  ## draw README.md's pictures again, from a real run
	$(RUN) -m tests.pictures

clean:  ## delete the environments, keep the runs
	rm -rf $(VENV) $(PEERS) $(READERS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) --version) found, expected Python 3.11 or later; run: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready-to-train: requirements.txt constraints.txt $(VENV)/bin/python
	$(RUN) -m pip install --quiet -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/ready-to-test: requirements-dev.txt requirements-convert.txt $(VENV)/ready-to-train
	$(RUN) -m pip install --quiet -r requirements-dev.txt -c constraints.txt
	touch $@

$(PEERS)/ready: requirements-peers.txt $(VENV)/bin/python
	$(RUN) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet -r requirements-peers.txt
	touch $@

# Emptied first, so that an old `ready` does not remain next to an incomplete installation.
# Without openvino-telemetry, which writes to ~/intel and sends data over the network on `import openvino`.
$(READERS)/ready: requirements-readers.txt $(VENV)/bin/python
	@echo "installing other readers of our models into $(READERS)"
	$(RUN) -m venv --clear $(READERS)
	$(READERS)/bin/python -m pip install --quiet -r requirements-readers.txt
	$(READERS)/bin/python -m pip uninstall --quiet --yes openvino-telemetry
	touch $@

"""CheckpointManager with save_in_background=False: training waits, and the whole machine writes."""

from benchmarks.peers import protocol
from benchmarks.peers.ours import Ours


class OursForeground(Ours):
    """The same files, made at once."""

    in_background = False


if __name__ == "__main__":
    protocol.serve(OursForeground)

"""CheckpointManager with save_in_background=False: training waits for the save."""

from benchmarks.peers import protocol
from benchmarks.peers.ours import Ours


class OursForeground(Ours):
    """The same files, written in the foreground."""

    in_background = False


if __name__ == "__main__":
    protocol.serve(OursForeground)

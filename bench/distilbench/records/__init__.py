"""What a finished run leaves on disk, how it is read back, and the published figures it is compared with.

It must not know how a run is made, nor import torch."""

"""A file system that forgets what was not synced, and fails on request.

``volatile`` is the model: a directory whose unsynced changes can be taken back. ``mount`` puts it
under a mount point through FUSE (``mfusepy``), in a process of its own: ``python -m chaos.lossyfs
STORE MOUNTPOINT``. ``disk`` is what the harness uses: it starts and ends that process, and speaks
to it through one extended attribute of the mount point.

What a crash may leave follows Linux's ext4 with ordered data, at its strictest: unsynced writes
are lost in any combination of 512-byte sectors; ``fsync`` of a file also keeps the name it was
created under; renames and removals are kept by ``fsync`` of their directory, in order.
"""

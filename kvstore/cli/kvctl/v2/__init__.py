"""etcdctl's commands of API version 2, on v3 data.

A v2 key is the v3 key of the same name. v3 has no directories; here a directory is what has keys
below it, or a marker: an empty value at its name with a slash at the end (``mkdir /a`` puts
``/a/``), so that an empty one can exist and a v3 reader sees what it is. The index that v2 prints
is the store's revision. What cannot be told from v3 data is not invented: a watch says ``[set]``
for every write, and ``[delete]`` for removals and expiries alike.
"""

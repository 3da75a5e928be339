"""facemix: split a network between an edge device and a cloud that only ever receives mixtures of images.

Importing this package loads neither side: the cloud (`facemix.cloud`) must run without the edge's code, and
the edge (`facemix.edge`) without the cloud's.
"""

__version__ = "0.1.0"

"""edgeft: from a pretrained model, labelled data and a device budget to an artifact that a device can trust."""

__version__ = "0.1.0"

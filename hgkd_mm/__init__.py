"""hgkd_mm: masked-image-modeling transformers distilled into small CNNs."""

__version__ = '0.1.0'

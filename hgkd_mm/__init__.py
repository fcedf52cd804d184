"""hgkd_mm: masked-image-modeling transformers distilled into small CNNs."""

from .utils import package_imports

__version__ = '0.1.0'

package_imports.install()

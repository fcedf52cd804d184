# mmseg's own file, by its path: 'mmseg::' would make mmengine pip-install the package that the
# forks replace (it looks for a distribution called mmsegmentation).
_base_ = [__import__('mmseg').__path__[0] + '/.mim/configs/_base_/models/upernet_mae.py']

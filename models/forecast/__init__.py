"""What bundles that forecast remaining life share: networks, intervals, folds, and the files of a bundle.

A folder of such a bundle brings its lives, the specification of their features, a `scale.Scale` and a `bundle.Identity`; `turbofan-rul/train.py` shows it.
"""

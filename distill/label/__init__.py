"""The student of the kind `label`: linear classifiers over n-grams, for answers from closed sets.

Imports store. Everything that a request passes through needs numpy alone; scikit-learn is imported
by the training subprocess.
"""

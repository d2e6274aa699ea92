"""The custom resource definition, generated from the model in `distkv.manifest`."""

from distkv_operator.crd.document import definition

__all__ = ["definition"]

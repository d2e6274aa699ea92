"""`kubectl distkv`: a cluster at a glance, and the few things a person has to tell the operator.

kubectl finds the program `kubectl-distkv` on the PATH. It asks the API server through kubectl
itself, so every way of logging in that kubectl knows works here too.
"""

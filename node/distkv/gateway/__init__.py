"""The load balancer: the same doors without a replica."""

"""What wakes a reconcile, and the reconcile itself: observe, plan, carry out, report."""

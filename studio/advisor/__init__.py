"""From a ledger to what to change: findings, the remedies that act on them, and the trials that prove them."""

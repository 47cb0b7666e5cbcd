"""Networks that more than one algorithm uses, and the policy every script shares."""

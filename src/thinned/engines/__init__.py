"""How a plan is run. No engine imports another."""

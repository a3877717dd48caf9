"""How a plan runs on NumPy, torch and Keras. No engine imports another."""

"""The known mistakes: found in source and in running models."""

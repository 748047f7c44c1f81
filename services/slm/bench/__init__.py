"""What the way to the model costs: the model alone, our way, and Ray Serve's default way, in one run."""

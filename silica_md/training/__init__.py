"""What the training loop (`silica_md/train.py`) is made of; one job a file."""

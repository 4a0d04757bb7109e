"""Language models, one file each, behind the interface in base.py."""

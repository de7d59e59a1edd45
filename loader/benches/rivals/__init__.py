"""The parts of rivals.py: what competes, where it is installed, how it is measured and how the record is written."""

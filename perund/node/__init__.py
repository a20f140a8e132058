"""The node: drives the channels, pays and withdraws, answers the control interface."""

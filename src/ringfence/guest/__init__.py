"""The guest agent and the host side of its protocol."""

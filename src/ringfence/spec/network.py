"""What a sandbox can reach."""

from typing import Literal

from ringfence.spec.model import Model


class Network(Model):
    """mode "none": only a loopback interface of its own."""

    mode: Literal["none"] = "none"

"""What the tests of calls ask of a gateway, whatever library they ask through. MODEL says what it sells."""

from __future__ import annotations

import os

from pydantic import BaseModel, Field

MODEL = os.environ["MODEL"]
PARIS = "What is the capital of France?"


class City(BaseModel):
    """A city and its country."""

    city: str = Field(max_length=20)
    country: str = Field(max_length=20)


def temperature(city: str) -> str:
    """The temperature in a city, in degrees Celsius."""
    return f"21 in {city}"

"""Steering: particles, trees and searches that wrap a solver and follow a reward; one method a file."""

__all__ = []

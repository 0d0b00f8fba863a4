"""PREVENTION: should this work start, and when?"""

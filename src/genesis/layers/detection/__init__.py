"""DETECTION: is something wrong, or about to be?"""

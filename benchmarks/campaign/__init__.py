"""The campaign: everything worth knowing of a machine, measured unattended, most valuable first.

    python -m chase.benchmarks.campaign --out DIR [--minutes N] [--smoke] [--device cuda|cpu] [--data PATH]

DIR gets one JSON file for each item, with its environment and command, and campaign.json, which says how far it got and
what was left out. The same command again goes on where it stopped.
"""

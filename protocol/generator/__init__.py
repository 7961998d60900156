# SPDX-License-Identifier: LGPL-2.1-or-later
"""What protocol/generate is made of: one module for the definition, one for each thing made from it."""

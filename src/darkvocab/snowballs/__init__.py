"""How does such structure arise?

Base vectors with noise, rounded: drawn, swept, counted, expected in closed form and fitted.
"""

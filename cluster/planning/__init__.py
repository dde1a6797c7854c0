"""`lpu plan`: what every plan would cost, from schedules made once, and the best of all."""

"""`oegw doctor`: examines the box that it runs on, and says what is wrong and what mends it."""

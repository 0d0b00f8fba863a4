"""New York's airports in the snow storm of 8 February 2013: a feed of real flights and weather."""

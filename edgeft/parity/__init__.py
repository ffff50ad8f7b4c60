"""Where two graphs of one network part: tensor by tensor, which layer, by what kind of fault, and what mends it."""

"""A bundle behind HTTP: a bounded line of requests, worker threads, and answers that name the bundle."""

"""The static files of the pages; `keeper.http.routes.page` serves them."""

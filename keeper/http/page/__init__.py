"""The static files of the pages; `keeper.http.page.routes` serves them."""

"""The HTTP service, in the extra `http`: the functions of `pyapi` over FastAPI.

    app = app_factory()                         # an app of its own, or in one of yours:

    service = Service(Settings.from_environment())
    app = FastAPI(lifespan=service.lifespan)
    app.include_router(router(service), prefix="/registry")

It decides nothing: every rule is in the database.
"""

from .app import app_factory, router
from .service import Service
from .settings import Settings

__all__ = ["Service", "Settings", "app_factory", "router"]

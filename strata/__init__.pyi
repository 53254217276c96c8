from strata.client import AsyncClient as AsyncClient
from strata.client import Client as Client
from strata.describing import Describer as Describer
from strata.describing import describe as describe

__version__: str

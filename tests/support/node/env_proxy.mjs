// Makes fetch honour HTTPS_PROXY in a Node that does not by itself (before 24, which has NODE_USE_ENV_PROXY=1). Loaded
// with NODE_OPTIONS=--import=…, so that the program stays as it is.
import { EnvHttpProxyAgent, setGlobalDispatcher } from 'undici'

setGlobalDispatcher(new EnvHttpProxyAgent())

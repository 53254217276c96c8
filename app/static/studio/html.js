// What every module uses of Preact and htm, from one place: `html` makes elements from a template.
import htm from "./vendor/htm.js";
import { Fragment, createContext, h, render } from "./vendor/preact.js";

export { useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
export { Fragment, createContext, render };
// texts are children of elements and never HTML: names, captions and texts of pictures come from untrusted sources
export const html = htm.bind(h);

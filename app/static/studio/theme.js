// Light or dark: as the system has it, until the person chooses.
const NAME = "strata.theme";

export const chosenTheme = () => localStorage.getItem(NAME) ?? "system";

export function setTheme(theme) {
  if (theme === "system") localStorage.removeItem(NAME);
  else localStorage.setItem(NAME, theme);
  apply();
}

function apply() {
  const theme = chosenTheme();
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

apply();

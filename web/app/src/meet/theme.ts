// SPDX-License-Identifier: Apache-2.0

const DARK = /prefers-color-scheme:\s*dark/;

/** Which rules were made for the dark half; their condition is replaced when a theme is forced. */
const rules = new Map<CSSMediaRule, string>();

/** Shows the page light or dark whatever the system says; undefined follows the system. */
export function applyTheme(theme: 'light' | 'dark' | undefined): void {
  for (const sheet of document.styleSheets) {
    for (const rule of sheet.cssRules) if (rule instanceof CSSMediaRule && (DARK.test(rule.conditionText) || rules.has(rule))) rules.set(rule, rules.get(rule) ?? rule.conditionText);
  }
  for (const [rule, condition] of rules) rule.media.mediaText = theme === 'dark' ? 'all' : theme === 'light' ? 'not all' : condition;
  document.documentElement.style.colorScheme = theme ?? '';
}

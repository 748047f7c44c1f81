/**
 * Splits an SQL script into statements and removes line comments, knowing quotes, parentheses and dollar quoting.
 * Temporal's scripts are read the way its own tool reads them
 * (go.temporal.io/server common/persistence/query_util.go), so that both run the same statements.
 */
export function splitStatements(script: string): string[] {
  const statements: string[] = [];
  let current = '';
  let depth = 0;
  for (let at = 0; at < script.length; ) {
    const token = tokenAt(script, at);
    at += token.length;
    if (token.startsWith('--')) continue;
    if (token === '(') depth += 1;
    if (token === ')') depth -= 1;
    if (token === ';' && depth === 0) {
      push(statements, current);
      current = '';
    } else {
      current += token;
    }
  }
  push(statements, current);
  return statements;
}

function push(statements: string[], text: string): void {
  const statement = text.trim();
  if (statement !== '') statements.push(statement);
}

/** A comment, a quoted text, a dollar-quoted body, or one character. */
const tokens = /--[^\n]*|'(?:[^']|'')*'|"[^"]*"|\$([A-Za-z_]*)\$[\s\S]*?\$\1\$|[\s\S]/y;

function tokenAt(script: string, at: number): string {
  tokens.lastIndex = at;
  return tokens.exec(script)?.[0] ?? '';
}

/** True for a statement that Postgres refuses inside a transaction. */
export function runsOutsideTransaction(statement: string): boolean {
  return /^(CREATE|DROP|REINDEX)\b.*\bINDEX\s+CONCURRENTLY\b/is.test(statement);
}

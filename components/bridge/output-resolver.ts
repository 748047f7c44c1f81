import * as pulumi from '@pulumi/pulumi';
import type { IResolver, ResolutionContext } from 'cdk8s';

/** Marked by a character of the private-use area, which nobody types, so that a placeholder is not forged by accident. */
const placeholder = /^\uE0A7output:(\d+)\uE0A7$/;
const traces = /\uE0A7|Calling \[to/;
const insideText = /\uE0A7output:\d+\uE0A7|Calling \[to(?:String|JSON)\] on an \[Output<T>\]/;

/**
 * Lets a cdk8s tree hold `pulumi.Output`s and promises: cdk8s sees a placeholder string while it renders, and
 * {@link restore} puts the very same Output back, so that its secretness and its dependencies survive.
 */
export class OutputResolver implements IResolver {
  readonly #outputs: pulumi.Output<unknown>[] = [];
  readonly #tokens = new Map<unknown, string>();

  /** Called by cdk8s on every property. */
  resolve(context: ResolutionContext): void {
    const value: unknown = context.value;
    if (typeof value !== 'object') return;
    if (isDeferred(value)) context.replaceValue(this.#token(value));
    // A union of number and string (`IntOrString`, `Quantity`) is a class around `.value`, into which cdk8s does not look.
    else if (isUnionOfDeferred(value)) context.replaceValue({ value: this.#token(value.value) });
  }

  /**
   * Swaps every placeholder below `value` for its Output.
   * @param describePath names a field in an error
   * @throws when an Output was turned into text on the way: its value would be the placeholder
   */
  restore(value: unknown, describePath: (path: readonly string[]) => string): unknown {
    // Few objects hold an Output, and one look at their text is cheaper than a copy of every branch.
    return traces.test(JSON.stringify(value)) ? this.#restore(value, describePath, []) : value;
  }

  #restore(value: unknown, describePath: (path: readonly string[]) => string, path: readonly string[]): unknown {
    if (typeof value === 'string') return this.#restoreString(value, describePath, path);
    if (value === null || typeof value !== 'object' || pulumi.Output.isInstance(value)) return value;
    if (Array.isArray(value))
      return value.map((item, index) => this.#restore(item, describePath, [...path, `${index}`]));
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, this.#restore(item, describePath, [...path, key])]),
    );
  }

  #restoreString(value: string, describePath: (path: readonly string[]) => string, path: readonly string[]): unknown {
    const index = placeholder.exec(value)?.[1];
    if (index !== undefined) return this.#outputs[Number(index)];
    if (!insideText.test(value)) return value;
    throw new Error(
      `${describePath(path)} was built from a pulumi.Output with string concatenation, a template or JSON.stringify; ` +
        'build it with pulumi.interpolate`...` or pulumi.jsonStringify(...) instead',
    );
  }

  #token(value: pulumi.Output<unknown> | Promise<unknown>): string {
    const known = this.#tokens.get(value);
    if (known !== undefined) return known;
    const token = `\uE0A7output:${this.#outputs.length}\uE0A7`;
    this.#outputs.push(pulumi.output(value));
    this.#tokens.set(value, token);
    return token;
  }
}

type Deferred = pulumi.Output<unknown> | Promise<unknown>;

function isDeferred(value: unknown): value is Deferred {
  return pulumi.Output.isInstance(value) || value instanceof Promise;
}

function isUnionOfDeferred(value: unknown): value is { readonly value: Deferred } {
  if (value === null || typeof value !== 'object' || Array.isArray(value) || value.constructor === Object) return false;
  return 'value' in value && isDeferred(value.value);
}

import * as pulumi from '@pulumi/pulumi';
import { ApiObject, App, type Chart } from 'cdk8s';
import type { IConstruct } from 'constructs';
import { describe, type Manifest } from './manifest.ts';
import { normalise } from './normalise.ts';
import { OutputResolver } from './output-resolver.ts';

/** An object of a chart, with the objects of the same chart that it was told to wait for. */
export interface SynthesizedObject {
  readonly source: ApiObject;
  readonly manifest: Manifest;
  readonly dependencies: readonly ApiObject[];
}

/** A cdk8s App whose charts may hold Outputs. Every chart that is handed to the bridge lives in one. */
export function bridgeApp(): App {
  return new App({ resolvers: [new OutputResolver()] });
}

/**
 * Renders a chart to plain objects that may hold Outputs, in the order of construction.
 *
 * cdk8s' own synthesis visits the whole App for each chart; with a chart per product that is quadratic, so this
 * visits the chart only. Validations of the chart's constructs run as they would there.
 *
 * @throws with the construct's path when a validation fails, an Output was made into text, or a name is not plain
 */
export function synthesize(chart: Chart): readonly SynthesizedObject[] {
  const resolver = resolverOf(chart);
  const constructs = chart.node.findAll();
  validate(constructs);
  const objects = constructs.filter((node): node is ApiObject => node instanceof ApiObject && node.chart === chart);
  const dependencies = dependenciesOf(constructs, new Set(objects));
  const synthesized = objects.map((source) => ({
    source,
    manifest: manifestOf(source, resolver),
    dependencies: [...(dependencies.get(source) ?? [])],
  }));
  refuseTwins(synthesized);
  return synthesized;
}

function resolverOf(chart: Chart): OutputResolver {
  const resolver = App.of(chart).resolvers.find((candidate) => candidate instanceof OutputResolver);
  if (resolver instanceof OutputResolver) return resolver;
  throw new Error(`the App of chart '${chart.node.path}' cannot hold Outputs; create it with bridgeApp()`);
}

function validate(constructs: readonly IConstruct[]): void {
  const errors = constructs.flatMap((node) => node.node.validate().map((message) => `[${node.node.path}] ${message}`));
  if (errors.length > 0) throw new Error(`the chart is not valid:\n  ${errors.join('\n  ')}`);
}

function manifestOf(source: ApiObject, resolver: OutputResolver): Manifest {
  assertPlain(source, 'metadata.name', source.name);
  assertPlain(source, 'metadata.namespace', source.metadata.namespace);
  const rendered = source.toJson() as Manifest;
  const where = (path: readonly string[]) => `${path.join('.')} of ${describe(rendered)} (${source.node.path})`;
  return normalise(resolver.restore(rendered, where) as Manifest);
}

function assertPlain(source: ApiObject, field: string, value: unknown): void {
  if (
    value === undefined ||
    (typeof value === 'string' && !value.includes('\uE0A7') && !pulumi.Output.isInstance(value))
  )
    return;
  throw new Error(
    `${field} of ${source.kind} '${source.node.path}' is a pulumi.Output; a name is identity and must be a plain string`,
  );
}

/** Spreads dependencies between constructs to the objects below them, as cdk8s does. */
function dependenciesOf(
  constructs: readonly IConstruct[],
  members: ReadonlySet<ApiObject>,
): Map<ApiObject, Set<ApiObject>> {
  const result = new Map<ApiObject, Set<ApiObject>>();
  for (const source of constructs) {
    for (const target of source.node.dependencies) {
      const targets = objectsBelow(target, members);
      for (const object of objectsBelow(source, members)) {
        const known = result.get(object) ?? new Set();
        for (const dependency of targets) if (dependency !== object) known.add(dependency);
        result.set(object, known);
      }
    }
  }
  return result;
}

function objectsBelow(construct: IConstruct, members: ReadonlySet<ApiObject>): ApiObject[] {
  return construct.node.findAll().filter((node): node is ApiObject => members.has(node as ApiObject));
}

function refuseTwins(objects: readonly SynthesizedObject[]): void {
  const seen = new Map<string, ApiObject>();
  for (const { source, manifest } of objects) {
    const identity = describe(manifest);
    const twin = seen.get(identity);
    if (twin !== undefined) {
      throw new Error(`${identity} is declared twice: by '${twin.node.path}' and by '${source.node.path}'; rename one`);
    }
    seen.set(identity, source);
  }
}

import { Chart } from 'cdk8s';
import type { Construct, IConstruct } from 'constructs';
import { dnsLabel, oneOf } from './validate.ts';

/** The planes of a region; each is a namespace `<region>-<plane>`. */
export const planes = ['system', 'data', 'identity', 'runtime', 'services'] as const;

/** A part of a region that is deployed, secured and reasoned about as one. */
export type Plane = (typeof planes)[number];

/** Label that carries the region's name on every object. */
export const REGION_LABEL = 'somagent.dev/region';

/** Name of the namespace of a plane. */
export function planeNamespace(region: string, plane: Plane): string {
  return dnsLabel('namespace', `${region}-${plane}`);
}

/** Options of {@link RegionChart}. */
export interface RegionChartProps {
  /** Name of the region, a DNS label, such as `eu-west`. */
  readonly region: string;
  /** Which plane the objects of the chart belong to; decides the namespace. */
  readonly plane: Plane;
}

/** The objects of one plane of one region: gives every object its namespace and the labels common to the platform. */
export class RegionChart extends Chart {
  readonly region: string;
  readonly plane: Plane;

  constructor(scope: Construct, id: string, props: RegionChartProps) {
    const region = dnsLabel('region', props.region);
    const plane = oneOf('plane', props.plane, planes);
    super(scope, id, { namespace: planeNamespace(region, plane), labels: platformLabels(region) });
    this.region = region;
    this.plane = plane;
  }
}

/** Labels that every object of a region carries. */
export function platformLabels(region: string): Record<string, string> {
  return {
    'app.kubernetes.io/part-of': 'somagent',
    'app.kubernetes.io/managed-by': 'somagent',
    [REGION_LABEL]: region,
  };
}

/** Where a construct stands: its region and its namespace. */
export interface Place {
  readonly region: string;
  readonly namespace: string;
}

/** The region and namespace of a construct, from the {@link RegionChart} above it. */
export function placeOf(construct: Construct): Place {
  const chart = construct.node.scopes.find(isRegionChart);
  if (chart !== undefined) return { region: chart.region, namespace: planeNamespace(chart.region, chart.plane) };
  throw new Error(
    `construct ${construct.node.path} stands in no RegionChart, so it has no region and no namespace. ` +
      'Create it inside `new RegionChart(app, id, { region, plane })`.',
  );
}

/** `instanceof` can't tell: cdk8s makes it true for every chart. */
function isRegionChart(scope: IConstruct): scope is RegionChart {
  return Chart.isChart(scope) && 'region' in scope && 'plane' in scope;
}

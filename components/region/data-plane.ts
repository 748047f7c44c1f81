import type { RegionChart } from '@somagent/constructs';
import type { ChartDeployment } from '../bridge/index.ts';
import { Plane, type PlaneArgs, type PlaneOptions } from './plane.ts';

/** Arguments of {@link DataPlane}. */
export interface DataPlaneArgs extends PlaneArgs {
  readonly postgres: RegionChart;
  /** The region's secrets. */
  readonly secrets: ChartDeployment;
}

/** Where state lives. */
export class DataPlane extends Plane {
  /** Works when every database and its role exist. */
  readonly databases: ChartDeployment;

  constructor(name: string, args: DataPlaneArgs, opts: PlaneOptions) {
    super('somagent:region:DataPlane', name, args, opts);
    this.databases = this.deploy('postgres', args.postgres, [args.secrets]);
    this.registerOutputs({});
  }
}

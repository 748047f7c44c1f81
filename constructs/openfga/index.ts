export { OpenFga, type OpenFgaProps } from './openfga.ts';
